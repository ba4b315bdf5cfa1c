"""The declarations of the commands, in groups: their arguments, and the functions that they call.

The value of an argument becomes the function's parameter of the same name. The modules that compute are imported by the
command that runs.
"""

from dvlae.cli.command import Command, Commands
from dvlae.cli.commands import denoise, models, steps
from dvlae.cli.commands.arguments import argument

SHELLS = ("bash", "zsh", "fish", "powershell", "tcsh")

GROUPS: dict[str, Commands] = {
    "denoise and look": denoise.COMMANDS,
    "steps of the workflow": steps.COMMANDS,
    "models": models.COMMANDS,
    "shell": {
        Command(
            "completion",
            "Print a script that completes commands and options in a shell.",
            "dvlae.cli.completion:completion",
            'eval "$(dvlae completion bash)"',
        ): [argument("shell", None, "the shell", choices=SHELLS)]
    },
}
COMMANDS: Commands = {command: arguments for group in GROUPS.values() for command, arguments in group.items()}
