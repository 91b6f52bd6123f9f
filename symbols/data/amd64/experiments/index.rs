// Written by generate-tables.
&[
    (18, 10, include_str!("go1.18.10.json")),
    (19, 13, include_str!("go1.19.13.json")),
    (20, 14, include_str!("go1.20.14.json")),
    (21, 13, include_str!("go1.21.13.json")),
    (22, 12, include_str!("go1.22.12.json")),
    (23, 12, include_str!("go1.23.12.json")),
    (24, 13, include_str!("go1.24.13.json")),
    (25, 14, include_str!("go1.25.14.json")),
    (26, 11, include_str!("go1.26.11.json")),
    (27, 4, include_str!("go1.27.4.json")),
]
