"""The commands of the command line, a module for each group; ``headwater.cli`` lists them."""
