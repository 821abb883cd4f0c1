"""Where does it win? The lift as a surface over parameters of the world or of a policy."""
