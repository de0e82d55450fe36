"""The ROS 2 side of acs: a lifecycle node around :class:`acs_core.grounder.Grounder`, and what feeds and checks it."""
