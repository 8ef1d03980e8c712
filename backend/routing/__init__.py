"""Expert routing: policies that choose which experts of a mixture a token uses."""
