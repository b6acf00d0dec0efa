"""One disaster, one file: `damage(path)` does to a journal segment what the module's name says."""
