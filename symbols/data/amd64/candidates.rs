// Written by generate-tables.
&[
    (25, "rc1", include_str!("go1.25rc1.json")),
    (26, "rc1", include_str!("go1.26rc1.json")),
    (27, "rc1", include_str!("go1.27rc1.json")),
]
