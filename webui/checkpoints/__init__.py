"""file -> {name: tensor}, and the index of the models folder."""
