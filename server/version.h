/*
 * version.h: who we are, and whose language we speak.
 */
#ifndef FSW_SERVER_VERSION_H
#define FSW_SERVER_VERSION_H

#ifndef FSW_SERVER_VERSION
#define FSW_SERVER_VERSION "unknown"
#endif
#define FSW_SERVER_SPEAKS "7.0.0"

#endif
