"""COCO 2017 from its server, or from a mirror: fetched in parts, checked, unpacked."""
