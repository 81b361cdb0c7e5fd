"""`python -m fastssl.cli`, where the console script is not on the PATH."""

from fastssl.cli.main import main

main()
