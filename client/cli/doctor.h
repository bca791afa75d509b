/*
 * doctor.h: the part of farswap doctor that others need before they begin.
 */
#ifndef FSW_DOCTOR_H
#define FSW_DOCTOR_H

/* Prints what it finds of the host, device or not. Returns how much of it will not work. */
int doctor_look_at_host(void);

#endif
