/*
 * QEMU's NVDIMM root device with what real ones have and QEMU's lacks: address range scrub, clearing of errors, injected errors (which a scrub finds), and
 * DIMMs that tell of their health. The kernel takes it from the initrd in place of QEMU's own table, which has the same names and a lower
 * revision. There are no labels: the whole region is namespace0.0.
 *
 * Integers have 32 bits here (QEMU's DSDT is of revision 1), so addresses are kept by their low half; the high one is the same everywhere.
 */
DefinitionBlock ("", "SSDT", 1, "BOCHS ", "NVDIMM", 0x00000002)
{
    Scope (\_SB)
    {
        Device (NVDR)
        {
            Name (_HID, "ACPI0012")
            Name (POLL, Zero)                           // so often a scrub says yet that it is busy
            Name (HIGH, Zero)
            Name (CONT, Zero)                           // how many sectors are bad
            Name (BADS, Package (0x10) { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 })
            Name (OUTB, Buffer (0x01B0) {})             // status of a scrub: 48 bytes and 24 for each sector
            CreateDWordField (OUTB, 0x04, OLEN)
            CreateField (OUTB, 0x40, 0x80, ORNG)        // what was scrubbed: address, length
            CreateDWordField (OUTB, 0x2C, ONUM)

            Method (BADD, 1, Serialized)                // the sector at this low half is bad
            {
                If (CONT < 0x10)
                {
                    BADS [CONT] = Arg0
                    CONT++
                }
            }

            Method (BDEL, 2, Serialized)                // every sector in this range is good: from its low half, so many bytes
            {
                Local0 = Zero
                While (Local0 < CONT)
                {
                    Local1 = DerefOf (BADS [Local0])
                    If ((Local1 >= Arg0) && ((Local1 - Arg0) + 0x0200 <= Arg1))
                    {
                        CONT--
                        BADS [Local0] = DerefOf (BADS [CONT])
                    }
                    Else { Local0++ }
                }
            }

            Method (PUTR, 2, Serialized)                // record of one bad sector, at this byte of the answer
            {
                CreateDWordField (OUTB, (Arg0 + 0x08), RLOW)
                CreateDWordField (OUTB, (Arg0 + 0x0C), RHIG)
                CreateDWordField (OUTB, (Arg0 + 0x10), RLEN)
                RLOW = Arg1
                RHIG = HIGH
                RLEN = 0x0200
            }

            Method (STRT, 1, Serialized)                // start a scrub; an answer from what is known already takes no time
            {
                CreateField (Arg0, Zero, 0x80, RANG)
                CreateByteField (Arg0, 0x12, FLAG)
                ORNG = RANG
                POLL = Zero
                If ((FLAG & 0x02) == Zero) { POLL = 0x02 }
                Return (Buffer (0x08) { 0x00, 0x00, 0x00, 0x00, 0x01 })
            }

            Method (STAT, 0, Serialized)
            {
                If (POLL)
                {
                    POLL--
                    Return (Buffer (0x30) { 0x00, 0x00, 0x01, 0x00, 0x30 })
                }
                Local0 = Zero
                While (Local0 < CONT)
                {
                    PUTR (0x30 + (Local0 * 0x18), DerefOf (BADS [Local0]))
                    Local0++
                }
                ONUM = CONT
                OLEN = 0x30 + (CONT * 0x18)
                Return (Mid (OUTB, Zero, OLEN))
            }

            Name (CLRB, Buffer (0x10) {})
            CreateDWordField (CLRB, 0x00, CSTA)
            CreateDWordField (CLRB, 0x08, CLEN)
            Method (CLER, 1, Serialized)                // clear: in whole units of 256 bytes only
            {
                CreateDWordField (Arg0, 0x00, ALOW)
                CreateDWordField (Arg0, 0x08, ALEN)
                CSTA = Zero
                CLEN = Zero
                If ((ALOW | ALEN) & 0xFF) { CSTA = 0x02 }
                Else
                {
                    BDEL (ALOW, ALEN)
                    CLEN = ALEN
                }
                Return (CLRB)
            }

            Method (INJE, 1, Serialized)                // inject: each sector of the range; told at once if the caller wants that
            {
                CreateDWordField (Arg0, 0x00, ALOW)
                CreateDWordField (Arg0, 0x04, AHIG)
                CreateDWordField (Arg0, 0x08, ALEN)
                CreateByteField (Arg0, 0x10, OPTS)
                HIGH = AHIG
                Local0 = Zero
                While (Local0 < ALEN)
                {
                    BADD (ALOW + Local0)
                    Local0 += 0x0200
                }
                If (OPTS & One) { Notify (\_SB.NVDR, 0x81) }
                Return (Buffer (0x04) {})
            }

            Method (INJC, 1, Serialized)                // injected no more
            {
                CreateDWordField (Arg0, 0x00, ALOW)
                CreateDWordField (Arg0, 0x08, ALEN)
                BDEL (ALOW, ALEN)
                Return (Buffer (0x04) {})
            }

            Method (_DSM, 4, Serialized)
            {
                If (Arg0 != ToUUID ("2f10e7a4-9e91-11e4-89d3-123b93f75cba")) { Return (Buffer (One) {}) }
                Local0 = Zero                           // asked what it can, it gets no input
                If (SizeOf (Arg3)) { Local0 = DerefOf (Arg3 [Zero]) }
                Switch (ToInteger (Arg2))
                {
                    Case (0x00) { Return (Buffer (0x02) { 0x9F, 0x03 }) }
                    // What it can: scrubs of persistent memory; answers of 4096 bytes; units of 256 bytes are cleared.
                    Case (0x01) { Return (Buffer (0x10) { 0x00, 0x00, 0x02, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x01 }) }
                    Case (0x02) { Return (STRT (Local0)) }
                    Case (0x03) { Return (STAT ()) }
                    Case (0x04) { Return (CLER (Local0)) }
                    Case (0x07) { Return (INJE (Local0)) }
                    Case (0x08) { Return (INJC (Local0)) }
                    Case (0x09) { Return (Buffer (0x08) {}) }   // which were injected is not told
                }
                Return (Buffer (0x04) { 0x01 })
            }

            Device (NV00)
            {
                Name (_ADR, One)
                Name (SMRT, Buffer (0x84)               // good, 75 % spare, 5 % used, 23 degrees
                {
                    0x00, 0x00, 0x00, 0x00, 0x2F, 0x06, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x4B, 0x05, 0x00, 0x70, 0x01
                })
                CreateByteField (SMRT, 0x0C, HLTH)
                CreateByteField (SMRT, 0x0D, SPAR)
                CreateByteField (SMRT, 0x0F, ALRM)
                CreateWordField (SMRT, 0x10, TEMP)
                CreateDWordField (SMRT, 0x14, SHUT)
                Name (THRE, Buffer (0x0C) { 0x00, 0x00, 0x00, 0x00, 0x07, 0x00, 0x05, 0x80, 0x02 })   // 5 % spare, 40 degrees
                CreateByteField (THRE, 0x06, TSPR)
                CreateWordField (THRE, 0x07, TTMP)

                Method (INJS, 1, Serialized)
                {
                    CreateByteField (Arg0, 0x00, FLAG)
                    CreateByteField (Arg0, 0x08, TENA)
                    CreateWordField (Arg0, 0x09, TVAL)
                    CreateByteField (Arg0, 0x0B, SENA)
                    CreateByteField (Arg0, 0x0C, SVAL)
                    CreateByteField (Arg0, 0x0D, FENA)
                    If (FLAG & 0x01)
                    {
                        TEMP = 0x0170
                        If (TENA) { TEMP = TVAL }
                    }
                    If (FLAG & 0x02)
                    {
                        SPAR = 0x4B
                        If (SENA) { SPAR = SVAL }
                    }
                    If (FLAG & 0x08) { SHUT++ }
                    Local0 = Zero
                    If (SPAR < TSPR) { Local0 |= 0x01 }
                    If (TEMP > TTMP) { Local0 |= 0x02 }
                    ALRM = Local0
                    Local1 = Zero
                    If (Local0) { Local1 = 0x01 }
                    If ((FLAG & 0x04) && FENA) { Local1 |= 0x04 }
                    HLTH = Local1
                    Notify (\_SB.NVDR.NV00, 0x81)
                    Return (Buffer (0x04) {})
                }

                Method (_DSM, 4, Serialized)
                {
                    If (Arg0 != ToUUID ("4309ac30-0d11-11e4-9191-0800200c9a66")) { Return (Buffer (One) {}) }
                    Switch (ToInteger (Arg2))
                    {
                        Case (0x00) { Return (Buffer (0x03) { 0x07, 0x00, 0x04 }) }
                        Case (0x01) { Return (SMRT) }
                        Case (0x02) { Return (THRE) }
                        Case (0x12) { Return (INJS (DerefOf (Arg3 [Zero]))) }
                    }
                    Return (Buffer (0x04) { 0x01 })
                }
            }
        }
    }
}
