"""`python -m fastssl`, where the console script is not on the PATH."""

from fastssl.cli.main import main

main()
