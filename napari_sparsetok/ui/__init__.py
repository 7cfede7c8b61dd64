"""What a person sees. The only part that knows Qt and napari."""
