# find_package(omex) gives two targets:
#   omex::host   libomex: packages within a budget, on machines with an operating system (omex_host.h)
#   omex::core   libomexcore: images in memory that you give it, on anything (omex.h, omex.hpp)
#
# In a checkout: -Domex_DIR=OMEX/host/capi/cmake, after
#   cargo build --release -p omex-c -p omex-core-c
# Installed: libraries in PREFIX/lib, headers in PREFIX/include, this file in PREFIX/lib/cmake/omex.

get_filename_component(_omex_checkout "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
get_filename_component(_omex_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
set(_omex_hints "${_omex_checkout}/target/release" "${_omex_checkout}/target/debug" "${_omex_prefix}/lib")
set(_omex_headers "${_omex_checkout}/host/capi/include" "${_omex_checkout}/core/capi/include" "${_omex_prefix}/include")

find_library(OMEX_HOST_LIBRARY NAMES omex HINTS ${_omex_hints})
find_library(OMEX_CORE_LIBRARY NAMES omexcore HINTS ${_omex_hints})
find_path(OMEX_HOST_INCLUDE omex_host.h HINTS ${_omex_headers})
find_path(OMEX_CORE_INCLUDE omex.h HINTS ${_omex_headers})
find_package(Threads QUIET)

function(_omex_target name library include)
  if(NOT library OR NOT include OR TARGET omex::${name})
    return()
  endif()
  add_library(omex::${name} UNKNOWN IMPORTED)
  set_target_properties(omex::${name} PROPERTIES
    IMPORTED_LOCATION "${library}" INTERFACE_INCLUDE_DIRECTORIES "${include}")
  if(UNIX AND NOT CMAKE_SYSTEM_NAME STREQUAL "Generic" AND library MATCHES "\\.a$")
    set_target_properties(omex::${name} PROPERTIES
      INTERFACE_LINK_LIBRARIES "${CMAKE_THREAD_LIBS_INIT};${CMAKE_DL_LIBS};m")
  endif()
endfunction()

_omex_target(host "${OMEX_HOST_LIBRARY}" "${OMEX_HOST_INCLUDE}")
_omex_target(core "${OMEX_CORE_LIBRARY}" "${OMEX_CORE_INCLUDE}")

set(omex_FOUND FALSE)
if(TARGET omex::host OR TARGET omex::core)
  set(omex_FOUND TRUE)
else()
  set(omex_NOT_FOUND_MESSAGE "run cargo build --release -p omex-c -p omex-core-c in the checkout of OMEX")
endif()
