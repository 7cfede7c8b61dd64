"""Running the network over a scan: numpy in, a prediction out."""
