import re

import pytest

from dvlae.api.notes import IN_WORKFLOW, name_arguments, name_options


@pytest.mark.parametrize("command", ["denoise", "init"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("denoise: 4 images of 64 x 64 pixels", "{}: 4 images of 64 x 64 pixels"),
        ("train: 4 steps", "train: 4 steps"),
        ("command line: axes: found 'Q', allowed: auto", "--axes: found 'Q', allowed: auto"),
        ("a.tif: channel: found 7, allowed: 0", "a.tif: --channel: found 7, allowed: 0"),
        ("a.tif: channel: found 7, allowed: null, as the", "a.tif: --channel: found 7, leave it out, as the"),
        ("channel: found -1, allowed: a number or grey or null", "--channel: found -1, allowed: a number or grey"),
        ("series: found 3 series; set `series` to one", "--series: found 3 series; set --series to one"),
        (
            "noisy: no pixel counts, as `mask` leaves out all of them, or none is a number: a.tif; in a file for "
            "`mask`, pixels other than 0 count",
            "FILES: no pixel counts: each is no number (NaN), or part of a border or a mask: a.tif",
        ),
        ("noisy: a.tif: found 0 everywhere", "FILES: a.tif: found 0 everywhere"),
        ("noise direction: found 'q'", "--noise-direction: found 'q'"),
        ("diagnose: warning: noise_direction: found x", "diagnose: warning: noise direction: found x"),
        ("prepare: 1 of 2 images of `noisy` is blank", "prepare: 1 of 2 images is blank"),
        ("`channel: grey` makes one", "--channel grey makes one"),
        ("`channel` of the dataset keeps another one", "--channel keeps another one"),
        ("`axes: SYX` with `axes_override: true` reads", "--axes SYX with --override-axes reads"),
        ("set `prediction.rescale: true`, or --rescale", "use --model with --rescale"),
        ("training.max_minutes now leaves time for fewer steps", "--minutes now leaves time for fewer steps"),
    ],
)
def test_messages_name_the_command_and_its_options(text, words, command):
    assert name_options(text, command) == words.format(command)


@pytest.mark.parametrize(
    "setting", ["`training.rescale: true`", "`evaluation.images`", "`crop: {y: [0, 9]}`", "`mask: auto`", "`crop`"]
)
def test_settings_without_an_option_are_said_to_be_of_the_workflow(setting):
    text = f"diagnose: {setting} helps"
    assert name_options(text, "denoise") == text + IN_WORKFLOW == name_arguments(text, "fit")
    assert name_options(text, "init") == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("denoise: measures", "fit: measures"),
        ("noisy: array 0: found 0 everywhere", "array 0: found 0 everywhere"),
        (
            "takes x; --noise-direction and --receptive-field change",
            "takes x; noise_direction and receptive_field change",
        ),
        ("--overwrite --minutes 13 has time", "minutes=13 has time"),
        ("--minutes 0.2 has time", "minutes=0.2 has time"),
        ("set `prediction.rescale: true`, or --rescale", "set rescale=True"),
        ("minutes: found 0", "minutes: found 0"),
        ("--axes SYX reads", "axes=SYX reads"),
    ],
)
def test_messages_of_python_name_the_function_and_its_arguments(text, words):
    assert name_arguments(text, "fit") == words


def test_the_function_that_was_called_names_itself(capfd):
    import numpy as np

    import dvlae

    frames = np.random.default_rng(0).poisson(20, (2, 48, 48))
    dvlae.fit(frames, minutes=1, max_steps=1, progress=True)
    said = capfd.readouterr().err
    assert "fit: 2 images of 48 x 48 pixels" in said
    assert not re.search("^denoise: |--[a-z]", said, re.MULTILINE)
