# Passed to every interface package as CMAKE_PROJECT_INCLUDE.
#
# The CMake exports of the ROS wheels name the Python include folder of the machine that built the wheels. CMake refuses
# an imported target with an include folder that does not exist, so such folders are removed once the package has found
# all its dependencies; the package's own find_package(Python3) adds the right one. Needs CMake 3.19 (DEFER).
function(_drop_missing_includes)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT folders)
      continue()
    endif()
    set(kept "")
    foreach(folder IN LISTS folders)
      if(IS_ABSOLUTE "${folder}" AND NOT EXISTS "${folder}")
        continue()
      endif()
      list(APPEND kept "${folder}")
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${kept}")
  endforeach()
endfunction()

cmake_language(DEFER CALL _drop_missing_includes)
