"""efface where OpenStack clears volumes (cinder) and cleans nodes (ironic).

Thin: what is written, verified and claimed is decided by the efface binary.
"""
