"""Pictures and tables of runs, made from run folders only; the one room that imports matplotlib."""
