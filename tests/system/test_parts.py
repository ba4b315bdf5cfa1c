import pytest

from dvlae.system.errors import UserError
from dvlae.system.parts import WHOLE, Part


@pytest.mark.parametrize("text, part", [("2/4", Part(2, 4)), ("2-of-4", Part(2, 4)), ("1/1", WHOLE)])
def test_a_part_is_written_with_a_slash_or_as_snakemake_does(text, part):
    assert Part.parse(text) == part


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "1/2/3", "a/b", "-1/2", ""])
def test_another_part_is_refused(text):
    with pytest.raises(UserError, match=r"--part: found '.*', allowed: K/N, with K from 1 to N"):
        Part.parse(text)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("images", [0, 1, 7, 10])
def test_all_parts_together_have_each_item_once_in_order_and_equal_shares(images, count):
    shares = [Part(number, count).share(range(images)) for number in range(1, count + 1)]
    assert [item for share in shares for item in share] == list(range(images))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_only_a_real_part_is_recorded():
    assert (Part(2, 4).record(), WHOLE.record()) == ({"part": "2/4"}, {})
