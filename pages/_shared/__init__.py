"""What pages share: the store, controls bound to the address, figures with their data and exports, runs."""
