"""Tables of labels that a person or a data set brings: true ones, or given ones."""
