"""The command line, installed as `fastssl.cli`: one file a command, listed in main.py."""
