# Fails when PAGE is not what GENERATOR prints now.
execute_process(COMMAND ${GENERATOR} OUTPUT_VARIABLE now RESULT_VARIABLE status)
if(NOT status EQUAL 0)
    message(FATAL_ERROR "${GENERATOR} failed: ${status}")
endif()
if(EXISTS ${PAGE})
    file(READ ${PAGE} committed)
endif()
if(NOT "${now}" STREQUAL "${committed}")
    message(FATAL_ERROR "${PAGE} is stale: a table has changed. "
        "Run cmake --build <build directory> --target reference, and commit the page with the table.")
endif()
