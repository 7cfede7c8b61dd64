"""``python -m napari_sparsetok.cli``."""

from napari_sparsetok.cli import main

main()
