/* Calls that have no safe use here become compile errors with a readable name. Include last. */
#ifndef COMMON_BANNED_H
#define COMMON_BANNED_H
/* macros of the C library, with some compilers and flags */
#undef alloca
#undef sprintf
#undef vsprintf
#pragma GCC poison strcpy strcat sprintf vsprintf gets strtok atoi atol atof gmtime localtime ctime rand srand alloca
#endif
