"""Conversions between ROS messages and the types of acs_core."""
