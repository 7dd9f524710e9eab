"""A first look at what was handed over, before there is a recipe: nothing is made, no home is needed."""
