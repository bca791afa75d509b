/*
 * doctor.h: the part of farswap doctor that others need before they begin.
 */
#ifndef FSW_DOCTOR_H
#define FSW_DOCTOR_H

/* Prints what it finds of the host, device or not; with trouble_only, not what is well. Returns how
 * much of it will not work. */
int doctor_look_at_host(int trouble_only);

/* This kernel has nbd, as a module or built in. */
int doctor_has_nbd(void);

#endif
