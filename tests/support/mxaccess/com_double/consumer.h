// The double of wwAlarmConsumer. What is known of it: docs/reference/mxaccess.md#alarm-consumer; everything else that it does
// is made up.
#pragma once

#include "alarm_double.h"
#include "server.h"

// Implements IDispatch for one dual interface, so that each interface of an object answers for its own methods.
template <class Interface> class Dual : public Interface {
public:
    explicit Dual(REFIID iid) : type_(type_info(iid, ALARM_LIBRARY)) {}
    virtual ~Dual() { if (type_) type_->Release(); }
    STDMETHODIMP GetTypeInfoCount(UINT *count) override { *count = 1; return S_OK; }
    STDMETHODIMP GetTypeInfo(UINT, LCID, ITypeInfo **out) override { *out = type_; type_->AddRef(); return S_OK; }
    STDMETHODIMP GetIDsOfNames(REFIID, LPOLESTR *names, UINT count, LCID, DISPID *ids) override { return type_->GetIDsOfNames(names, count, ids); }
    STDMETHODIMP Invoke(DISPID id, REFIID, LCID, WORD flags, DISPPARAMS *parameters, VARIANT *result, EXCEPINFO *exception, UINT *wrong) override {
        return type_->Invoke(static_cast<Interface *>(this), id, flags, parameters, result, exception, wrong);
    }

private:
    ITypeInfo *type_;
};

class Consumer : public Dual<IwwAlarmConsumer2>, public Dual<IwwAlarmConsumer> {
public:
    Consumer();
    virtual ~Consumer() { InterlockedDecrement(&live_objects); }

    STDMETHODIMP QueryInterface(REFIID iid, void **out) override;
    STDMETHODIMP_(ULONG) AddRef() override { return ULONG(InterlockedIncrement(&references_)); }
    STDMETHODIMP_(ULONG) Release() override;

    STDMETHODIMP InitializeConsumer(BSTR application, LONG *result) override;
    STDMETHODIMP RegisterConsumer(LONG window, BSTR product, BSTR application, BSTR version, LONG *result) override;
    STDMETHODIMP Subscribe(BSTR subscription, SHORT from, SHORT to, LONG type, LONG sort, LONG mask, LONG specification, LONG *result) override;
    STDMETHODIMP AlarmAckByName(BSTR name, BSTR provider, BSTR group, BSTR comment, BSTR operator_name, BSTR node, LONG *result) override;
    STDMETHODIMP DeregisterConsumer(LONG *result) override;
    STDMETHODIMP UninitializeConsumer(LONG *result) override;
    STDMETHODIMP SetXmlAlarmQuery(BSTR query) override;
    STDMETHODIMP GetXmlCurrentAlarms2(LONG most, VARIANT *xml) override;
    STDMETHODIMP AlarmAckByName(BSTR name, BSTR provider, BSTR group, BSTR comment, BSTR operator_name, BSTR node, BSTR domain, BSTR full_name, LONG *result) override;
    STDMETHODIMP AlarmAckByGUID(BSTR guid, BSTR comment, BSTR operator_name, BSTR node, BSTR domain, BSTR full_name, LONG *result) override;

private:
    LONG references_ = 1;
    DWORD thread_;
    bool is_initialized_ = false, is_registered_ = false, is_subscribed_ = false, has_query_ = false;
};
