from pathlib import Path

from dvlae.system.software import shipped_methods

GUIDE = Path(__file__).parents[2] / "docs/methods.md"


def test_the_guide_names_each_method_file():
    text = GUIDE.read_text(encoding="utf-8")
    assert [file.stem for file in shipped_methods().glob("*.yaml") if f"`{file.stem}`" not in text] == []
