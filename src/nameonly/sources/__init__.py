"""Where images lie: folders, tables, tar shards; and their bytes turned into upright RGB."""
