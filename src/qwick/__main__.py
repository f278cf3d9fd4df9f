"""`python -m qwick` is the command `qwick`."""

from qwick.cli.main import app

if __name__ == "__main__":
    app()
