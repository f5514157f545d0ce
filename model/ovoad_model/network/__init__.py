"""The OV-OAD network and its scorer; needs torch. Knows no session and no data set."""
