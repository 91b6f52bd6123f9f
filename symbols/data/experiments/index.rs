// Written by generate-tables.
&[
    (22, 12, include_str!("go1.22.12.json")),
    (23, 12, include_str!("go1.23.12.json")),
    (24, 13, include_str!("go1.24.13.json")),
    (25, 14, include_str!("go1.25.14.json")),
    (26, 11, include_str!("go1.26.11.json")),
    (27, 4, include_str!("go1.27.4.json")),
]
