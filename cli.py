"""The `landcover` command: the group of all commands, which `pipeline.commands` declares and runs."""

import click

from pipeline.commands.declarations import COMMANDS


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="landcover")
def main() -> None:
    """Turn satellite scenes into land-cover maps.

    Start with:  landcover classify SCENE.tif -o maps
    """


for command in COMMANDS:
    main.add_command(command)

if __name__ == "__main__":
    main()
