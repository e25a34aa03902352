/* python.exe of a directory that holds python311.dll: load the library beside this program, and run it. */
#include <stdio.h>
#include <windows.h>

typedef int (*entry_point)(int, wchar_t **);

int wmain(int argc, wchar_t **argv) {
    HMODULE library = LoadLibraryW(L"python311.dll");
    entry_point run = library ? (entry_point)(void *)GetProcAddress(library, "Py_Main") : NULL;
    if (!run) {
        fprintf(stderr, "cannot load python311.dll: error %lu\n", GetLastError());
        return 3;
    }
    return run(argc, argv);
}
