"""What breaks the node: floods (``acs-load``) and days on end (``acs-soak``), over real DDS."""
