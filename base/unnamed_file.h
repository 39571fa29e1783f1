/* Files that have no name while they are written (Linux's O_TMPFILE), so that whatever ends the program, SIGKILL and
 * loss of power included, leaves nothing behind. Not every file system and kernel has them. */
#ifndef STOWKV_UNNAMED_FILE_H
#define STOWKV_UNNAMED_FILE_H

/* A descriptor for writing a file in `folder`, with the permissions that the umask leaves; -1: none can be had, or none
 * that could get a name later, which is tried out at the free name `trial` in the same folder. */
int unnamed_file_open(const char *folder, const char *trial);

/* Gives the file its name; -1 with errno, EEXIST where the name is taken. */
int unnamed_file_link(int descriptor, const char *path);

#endif
