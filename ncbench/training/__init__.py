"""Training recipes: stages that say what a batch costs, and the one trainer that runs them."""
