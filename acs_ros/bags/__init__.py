"""Reading, recovering, writing and playing rosbag2 bags."""
