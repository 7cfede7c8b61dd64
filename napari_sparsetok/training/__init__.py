"""Training of SCD models from folders of labelled scans."""
