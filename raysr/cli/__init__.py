"""`raysr …`: thin commands over the packages below; every import of weight waits for its command."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    from raysr.cli.app import main

    main()
