use super::*;
use crate::source::containers::torch::Value;

fn unpickle(bytes: &[u8]) -> Result<Pickle, String> {
    read(bytes, &mut Span { start: 0, left: bytes.len() as u64 }, false)
}

/// Objects beyond those that every pickle has.
fn made(pickle: &Pickle) -> usize {
    pickle.objects.len() - unpickle(b"N.").unwrap().objects.len()
}

#[test]
fn lists_are_shared_through_the_memo() {
    // inner = []; [inner, inner], where the second mention appends to what both are.
    let pickle = unpickle(b"\x80\x02](]q\x01h\x01K\x05ae.").unwrap();
    let lengths: Vec<usize> =
        pickle.root().items().unwrap().map(|item| item.items().unwrap().len()).collect();
    assert_eq!(lengths, [1, 1]);
}

#[test]
fn a_list_may_contain_itself() {
    let pickle = unpickle(b"\x80\x02]q\x00h\x00a.").unwrap();
    let root = pickle.root();
    assert_eq!(root.items().unwrap().next().unwrap().items().unwrap().len(), 1);
    assert_eq!(root.describe(), "a list of a list");
}

#[test]
fn depth_and_sharing_cost_nothing() {
    let mut deep = vec![b']'; 200_000];
    deep.extend(vec![b'a'; 199_999]);
    deep.push(b'.');
    assert_eq!(made(&unpickle(&deep).unwrap()), 200_000);

    // Each list holds the one before it twice: 2^60 leaves, if they were copied.
    let mut laughs = b"]q\x00".to_vec();
    for i in 0..60 {
        laughs.extend([b']', b'q', i + 1, b'h', i, b'a', b'h', i, b'a']);
    }
    laughs.push(b'.');
    assert_eq!(made(&unpickle(&laughs).unwrap()), 61);

    // Each call wraps the one before it.
    let mut calls = b"ctorch._tensor\n_rebuild_from_type_v2\nq\0)R".to_vec();
    for _ in 0..100_000 {
        calls.extend(b"q\x01h\0(h\0Nh\x01\x85NtR");
    }
    calls.push(b'.');
    assert!(unpickle(&calls).is_ok());
}

#[test]
fn what_is_copied_is_bounded_by_what_was_read() {
    // set(list) of the same long list, again and again: 5 bytes for a thousand items.
    let mut sets = b"cbuiltins\nset\nq\0](".to_vec();
    sets.extend(vec![b'N'; 10_000]);
    sets.extend(b"e\x85q\x01");
    sets.extend(b"h\0h\x01R".repeat(10_000));
    sets.push(b'.');
    assert!(unpickle(&sets).unwrap_err().contains("far more data"));

    let mut names = b"\x8c\x01a".repeat(2).to_vec();
    for i in 0..5000_u32 {
        names.extend(format!("cm\nn{i}\n").bytes());
    }
    assert!(unpickle(&names).unwrap_err().contains("functions and classes"));
}

#[test]
fn hostile_lengths_are_refused_before_allocation() {
    let refused = unpickle(b"\x80\x02X\xff\xff\xff\xff").unwrap_err();
    assert_eq!(refused, "pickle, byte 7: a string of 4294967295 bytes where 0 are left");
    for opcodes in [&b"\x8d"[..], b"\x8e", b"\x96", b"\x8b", b"T", b"B"] {
        assert!(unpickle(&[opcodes, &[0xff; 8]].concat()).is_err());
    }
    assert!(unpickle(&vec![b']'; MAX_OBJECTS + 1]).unwrap_err().contains("objects"));
    assert!(unpickle(&vec![b'N'; MAX_OBJECTS + 2]).unwrap_err().contains("objects"));
    assert!(unpickle(&vec![b'('; MAX_OBJECTS + 2]).unwrap_err().contains("objects"));
}

#[test]
fn unknown_functions_and_classes_are_known_by_name_alone() {
    for (bytes, class, description) in [
        (&b"cos\nsystem\n(S'true'\ntR."[..], "os.system", "the result of the function os.system"),
        (b"cos\nsystem\n.", "os.system", "the function or class os.system"),
        (
            b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
            "os.system",
            "the result of the function os.system",
        ),
        (
            b"\x80\x02cutils\nParamAug\n)\x81}X\x05\0\0\0scaleK\x02sb.",
            "utils.ParamAug",
            "an object of class utils.ParamAug",
        ),
        (b"\x80\x04cm\nC\n)}\x92.", "m.C", "an object of class m.C"),
        (b"(im\nC\n.", "m.C", "an object of class m.C"),
        (b"(cm\nC\nI1\no.", "m.C", "an object of class m.C"),
        (b"ccopy_reg\n_reconstructor\n(cm\nC\nc__builtin__\nobject\nNtR.", "m.C", "an object of class m.C"),
        (b"\x80\x02\x82\x07)R.", "copyreg.extension 7", "the result of the function copyreg.extension 7"),
        // What a class holds that is derived from a list and a dict.
        (b"\x80\x02cm\nC\n)\x81(K\x01K\x02eX\x01\0\0\0aNs.", "m.C", "an object of class m.C"),
    ] {
        let pickle = unpickle(bytes).unwrap();
        assert_eq!(pickle.root().class(), Some(class));
        assert_eq!(pickle.root().describe(), description);
        assert!(pickle.root().is_opaque() && pickle.root().advice().is_some());
    }
    let pickle = unpickle(b"\x80\x02cm\nC\n)\x81(K\x01K\x02eX\x01\0\0\0aNs.").unwrap();
    assert_eq!(pickle.root().integers(), Some(vec![1, 2]));
    assert!(pickle.root().get("a").unwrap().is_none());
    for bytes in [&b"P('storage', 0)\n."[..], b"NQ.", b"\x80\x05\x97.", b"\x80\x05\x97\x98."] {
        assert!(unpickle(bytes).unwrap().root().is_opaque());
    }
}

#[test]
fn attributes_are_those_of_the_state() {
    let attribute = |bytes| {
        let pickle = unpickle(bytes).unwrap();
        pickle.root().attribute("a").and_then(Value::as_int)
    };
    assert_eq!(attribute(b"\x80\x02cm\nC\n)\x81}U\x01aK\x05sb."), Some(5));
    // With slots.
    assert_eq!(attribute(b"\x80\x02cm\nC\n)\x81N}U\x01aK\x05s\x86b."), Some(5));
    // None, or of another kind.
    assert_eq!(attribute(b"\x80\x02cm\nC\n)\x81Nb."), None);
    assert_eq!(attribute(b"\x80\x02cm\nC\n)\x81."), None);
    assert_eq!(attribute(b"\x80\x02}U\x01aK\x05s."), None);
}

#[test]
fn containers_are_read_however_they_are_written() {
    let integers = |bytes| unpickle(bytes).unwrap().root().integers();
    for bytes in [
        &b"(lp0\nI1\naI2\na."[..],
        b"(I1\nL2L\nl.",
        b"(I1\nI2\nt.",
        b"]q\0(K\x01K\x02e.",
        b"K\x01K\x02\x86.",
        b"\x80\x04\x8f(K\x01K\x02\x90.",
        b"\x80\x04(K\x01K\x02\x91.",
        b"cbuiltins\nset\n](K\x01K\x02e\x85R.",
        b"cbuiltins\nrange\nK\x01K\x03K\x01\x87R.",
        b"cbuiltins\nrange\nK\x01J\xfe\xff\xff\xffK\x01\x87R(1.",
    ] {
        if bytes.ends_with(b"(1.") {
            assert_eq!(integers(bytes), Some(vec![]), "{bytes:?}");
        } else {
            assert_eq!(integers(bytes), Some(vec![1, 2]), "{bytes:?}");
        }
    }
    assert_eq!(integers(b"cbuiltins\nrange\nK\x00\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x01\x87R."), None);
    for bytes in [
        &b"(dp0\nS'a'\nI1\ns."[..],
        b"(S'a'\nI1\nd.",
        b"}q\0U\x01aK\x01s.",
        b"\x80\x03}C\x01aK\x01s.",
        b"}(V\\u0061\nI1\nu.",
        b"ccollections\nOrderedDict\n)RX\x01\0\0\0aK\x01s.",
        b"ccollections\nOrderedDict\n((lp1\n(lp2\nS'a'\naI1\naatR.",
        b"ccollections\ndefaultdict\ncbuiltins\nint\n\x85RU\x01aK\x01s.",
    ] {
        let pickle = unpickle(bytes).unwrap();
        assert_eq!(pickle.root().get("a").and_then(Value::as_int), Some(1), "{bytes:?}");
        assert_eq!(pickle.root().describe(), "a dict with the key a");
    }
}

#[test]
fn instructions_that_move_operands_do_as_in_python() {
    for (bytes, expected) in
        [(&b"K\x01K\x020."[..], 1), (b"K\x01(K\x02K\x031.", 1), (b"K\x01(0.", 1), (b"K\x012\x86K\x07.", 7)]
    {
        assert_eq!(unpickle(bytes).unwrap().root().as_int(), Some(expected), "{bytes:?}");
    }
    for bytes in [&b"0."[..], b"1.", b"2.", b"(2.", b"(o.", b"h\x01", b"g9\n.", b"gx\n.", b"\xff."] {
        assert!(unpickle(bytes).is_err(), "{bytes:?}");
    }
    assert_eq!(unpickle(b"h\x01").unwrap_err(), "pickle, byte 2: memo 1, which was never set");
}

#[test]
fn marks_guard_the_stack() {
    for pickle in [&b"N(R."[..], b"N(\x85.", b"e.", b"t.", b".", b"(.", b"]K\x01(a.", b"}(K\x01u.", b"](0a."]
    {
        assert!(unpickle(pickle).is_err(), "{pickle:?}");
    }
}

#[test]
fn integers_of_every_width() {
    for (bytes, expected) in [
        (&b"K\xff."[..], 255),
        (b"M\xff\xff.", 65_535),
        (b"J\xff\xff\xff\xff.", -1),
        (b"\x8a\x00.", 0),
        (b"\x8a\x01\xff.", -1),
        (b"\x8a\x02\xff\x00.", 255),
        (b"\x8b\x02\0\0\0\xff\x00.", 255),
        (b"I-7\n.", -7),
        (b"L300L\n.", 300),
    ] {
        assert_eq!(unpickle(bytes).unwrap().root().as_int(), Some(expected), "{bytes:?}");
    }
    for long in
        [&b"\x8a\x09\0\0\0\0\0\0\0\0\x01."[..], b"L99999999999999999999L\n.", b"I99999999999999999999\n."]
    {
        let pickle = unpickle(long).unwrap();
        assert_eq!((pickle.root().as_int(), pickle.root().is_opaque()), (None, true), "{long:?}");
    }
    assert_eq!(unpickle(b"F2.5\n.").unwrap().root().as_float(), Some(2.5));
    assert_eq!(unpickle(b"I01\n.").unwrap().root().as_bool(), Some(true));
}

#[test]
fn texts_that_are_not_unicode_are_opaque() {
    for bytes in [&b"X\x03\0\0\0\xed\xb2\x80."[..], b"V\\udc80\n."] {
        assert_eq!(unpickle(bytes).unwrap().root().describe(), "a string that is not Unicode");
    }
    assert_eq!(
        unpickle(b"c_codecs\nencode\n(V\\u0041\xe9\nVlatin1\ntR.").unwrap().root().as_bytes(),
        Some(&b"A\xe9"[..])
    );
    assert_eq!(unpickle(b"c_codecs\nencode\n(V\\u4e00\nVlatin1\ntR.").unwrap().root().as_bytes(), None);
}

#[test]
fn classes_in_classes_go_by_their_whole_name() {
    let pickle =
        unpickle(b"\x80\x02c__builtin__\ngetattr\ncm\nOuter\nX\x05\0\0\0Inner\x86R)\x81}b.").unwrap();
    assert_eq!(pickle.root().class(), Some("m.Outer.Inner"));
    // No class of torch's is reached that way.
    let pickle = unpickle(b"c__builtin__\ngetattr\nccollections\na\nX\x01\0\0\0b\x86R.").unwrap();
    assert_eq!(pickle.root().class(), Some("collections.a.b"));
    let mut long = b"c__builtin__\ngetattr\nq\0cm\nC\n".to_vec();
    for _ in 0..2000 {
        long.extend(b"q\x01h\0h\x01X\x08\0\0\0Attribut\x86R");
    }
    long.push(b'.');
    assert!(unpickle(&long).unwrap().root().class().unwrap().len() <= 1 << 10);
}
