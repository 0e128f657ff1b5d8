# Puts playground.html into a C array. Included by worker/CMakeLists.txt, it adds the generated file to
# ringcast_worker_lib; as a script (cmake -P) it writes that file:
#   cmake -DPAGE=playground.html -DOUT=playground.c -P playground.cmake
if(CMAKE_SCRIPT_MODE_FILE)
    file(READ ${PAGE} hex HEX)
    string(REGEX REPLACE "(................................)" "\\1\n    " hex "${hex}")
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," hex "${hex}")
    file(WRITE ${OUT} "/* Made from worker/playground.html by worker/playground.cmake. */\n"
        "#include \"worker/playground.h\"\n\n"
        "const uint8_t playground_html[] = {\n    ${hex}\n};\n"
        "const size_t playground_html_n = sizeof playground_html;\n")
    return()
endif()

set(PLAYGROUND_C ${CMAKE_CURRENT_BINARY_DIR}/playground.c)
add_custom_command(OUTPUT ${PLAYGROUND_C}
    COMMAND ${CMAKE_COMMAND} -DPAGE=${CMAKE_CURRENT_LIST_DIR}/playground.html -DOUT=${PLAYGROUND_C}
        -P ${CMAKE_CURRENT_LIST_DIR}/playground.cmake
    DEPENDS ${CMAKE_CURRENT_LIST_DIR}/playground.html ${CMAKE_CURRENT_LIST_DIR}/playground.cmake
    COMMENT "Putting playground.html into playground.c" VERBATIM)
target_sources(ringcast_worker_lib PRIVATE ${PLAYGROUND_C})
