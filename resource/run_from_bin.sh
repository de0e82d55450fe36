#!/bin/sh
# `ros2 run` and launch files look for executables in lib/acs_ros of an install prefix; pip and colcon put console scripts
# into bin of the same prefix. This file, installed in lib/acs_ros under a console script's name, runs that script.
# $0 is not resolved: with `colcon build --symlink-install` it is a link into the source tree, and the prefix is where
# the link lies.
exec "${0%/*}/../../bin/${0##*/}" "$@"
