"""Programs bare and under `valgap run`: weights, printed lines, files, exit status, random states."""
