"""The tasks of the papers, one file each, with the protocol of MeZO's and LoZO's published runs."""
