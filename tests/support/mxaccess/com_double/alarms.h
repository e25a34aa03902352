// The alarms of the double's plant. As with an alarm manager, all programs on a machine see the same ones, so they live in
// shared memory, for as long as any program has them open.
#pragma once

#include <windows.h>

#include <string>
#include <vector>

struct AlarmData {
    wchar_t reference[64], area[64], description[64], type[16];
    wchar_t guid[40], comment[512], operator_name[64];
    long priority;
    double value, limit;
    bool in_alarm, is_acknowledged;
    // When it was raised, acknowledged and cleared: FILETIMEs, 0 when it was not.
    ULONGLONG raised, acknowledged, cleared;
};

enum class Acknowledged { NOW, ALREADY, UNKNOWN };

class Alarms {
public:
    static Alarms &all();
    // Changes with every change of an alarm.
    LONG revision();
    AlarmData tank();
    // The active alarms, and those that ended a short time ago.
    std::vector<AlarmData> listed();
    // Raises the tank's alarm when its value is above the limit, and clears it when it is clearly below.
    void set_limit(double limit);
    Acknowledged acknowledge(const std::wstring &reference, const std::wstring &comment, const std::wstring &operator_name);
    void set_down(bool down);
    void set_hanging(bool hanging);
    bool is_down();
    bool is_hanging();

private:
    struct Shared;
    class Lock;
    Alarms();
    HANDLE mutex_, mapping_;
    Shared *shared_;
};
