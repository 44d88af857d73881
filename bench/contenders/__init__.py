"""One module a contender, each in the form its own documentation teaches."""
